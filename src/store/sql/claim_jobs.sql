select job_id, number from claim_jobs($1, $2::text[]::job_kind[], $3)
