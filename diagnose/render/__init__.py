"""One report model, sibling renderers."""
