"""The HTTP service: embeddings, collections and search, and the page that uses them."""
