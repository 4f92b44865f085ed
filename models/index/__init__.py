"""Index codecs: pictures as code indices at three granularities, and networks that predict the indices."""
