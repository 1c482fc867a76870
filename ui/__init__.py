"""The page a person sees: choose a picture, read what it is, see why. Run with `streamlit run ui/app.py`."""
