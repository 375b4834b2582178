"""Is it better, and is that significant? Tasks, domains and tests of significance."""
