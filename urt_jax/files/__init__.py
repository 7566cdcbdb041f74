"""Bytes on disk: bounded reads, strict JSON, fields read by type, atomic writes."""
