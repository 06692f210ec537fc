call claim_with_scenarios($1, $2::text[]::job_kind[], $3, $4, null, null, null, null, null, null, null, null, null, null, null, null)
