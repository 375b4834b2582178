"""The floor everything stands on: records, errors, files, optional imports. No maths, no heavy imports."""
