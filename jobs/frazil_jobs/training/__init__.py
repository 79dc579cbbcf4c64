"""Training over pipeline stages. So far a stand-in that lives the life of a gang (standin.py)."""
