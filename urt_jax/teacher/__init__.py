"""Ask a teacher for written comparisons over the OpenAI protocol; the built-in teacher for scenes."""
