"""The web app of `redepth app`: refine a photo in the browser, on this machine."""
