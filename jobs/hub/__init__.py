"""The rooms behind `jobs.hub.server`: a Hub over a folder, from its files to its replies."""
