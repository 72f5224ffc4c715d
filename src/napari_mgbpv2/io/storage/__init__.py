"""Storage of results: folders and object stores behind one output transaction."""
