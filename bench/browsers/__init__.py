"""Parts of bench/browser.py: the page of a participant, and the browser that shows it."""
