"""A comparison as a web page, and as tables and figures of a paper."""
