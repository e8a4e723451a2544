"""The worker: everything that trains. It never imports Qt or `app`."""
