"""The page of the comparison of backends, from its results."""
def markdown(data):
    return ""
