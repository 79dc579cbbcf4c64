"""What a job is: typed spec and status, conditions, rules, and the CRDs and the reference generated from them."""
