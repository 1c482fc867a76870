"""What is known of a version: how right, how honest, how robust it is, where it errs and what it was shown.

`python -m training.evaluate` runs all of it (see there). A module measures one thing and returns figures; `report`
calls them in turn and keeps what they found, `plots` and `data_plots` draw, `page` and `card` write for people.
"""
