"""Requests to a teacher for written comparisons over the OpenAI protocol."""
