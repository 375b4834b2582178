"""One module per family of formats, each with ``read(file, limits)``; `embedlab.data.files` knows which reads what."""
