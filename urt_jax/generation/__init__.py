"""The grouped sampler: prefill each question once, decode its responses together."""
