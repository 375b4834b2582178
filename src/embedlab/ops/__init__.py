"""Maths that three or more methods share; nothing comes here before the third."""
