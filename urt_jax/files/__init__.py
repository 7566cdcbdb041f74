"""Bytes on disk: read whole and bounded, JSON parsed in one way, fields taken by type, files written whole."""
