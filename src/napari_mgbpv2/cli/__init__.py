"""The commands. Each ends with status 0, or with another and one clear line on standard error."""
