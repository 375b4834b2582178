"""Reading documents and loading data sets: files in, documents and passages out."""
