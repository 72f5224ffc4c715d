"""Files in and out: images, readers, writers and storage."""
