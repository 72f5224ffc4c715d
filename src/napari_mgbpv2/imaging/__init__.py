"""Operations on pixels: axes, values, alpha, resampling and noise."""
