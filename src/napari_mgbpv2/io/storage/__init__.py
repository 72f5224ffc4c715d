"""Where results are stored: folders and object stores behind one output transaction."""
