"""The rooms behind `jobs.hubserver`: a Hub over a folder, from its files to its replies."""
