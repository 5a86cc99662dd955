"""What each verb of the command line does; jobs.cli says how it is called."""
