"""The grouped sampler: it prefills each question once and decodes the question's responses together."""
