"""One module a page, each with one function `page()` that `app.py` hands to Streamlit."""
