"""Scores of images: PSNR, SSIM, RMSE, NIQE and the contextual distance."""
