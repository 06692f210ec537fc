select job_id, number, look_after_ms from claim_jobs($1, $2::text[]::job_kind[], $3, (select n.providers from node n where n.id = $1))
