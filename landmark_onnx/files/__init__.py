"""Files and what is in them: written whole or not at all, hashed, and read as documents with limits."""
