"""Report the progress of a document to the browsers that watch it.

```python
from docprogress.publisher import publisher

with publisher().tracker("invoice-7") as tracker:
    tracker.start(total_pages=12)
    for page in pages:
        work_on(page)
        tracker.advance()
```
"""
