"""The core of `fix`: find objects, compute features of exchanged backgrounds, choose and fit a head. No page, no file."""
