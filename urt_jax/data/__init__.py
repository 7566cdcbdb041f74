"""From records and media files to padded numpy batches."""
