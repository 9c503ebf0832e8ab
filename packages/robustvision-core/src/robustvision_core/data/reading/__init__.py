"""Files to arrays: archives, downloads, image decoding, within stated limits."""
