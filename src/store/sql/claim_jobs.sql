select job_id, number, look_after_ms, of_lane, scenario_key, prompt, dimensions, claim_id, shared as "shared: Json<Vec<SharedWork>>" from claim_jobs($1, $2::text[]::job_kind[], $3, (
    select array(select p from unnest(n.providers) as p where p <> all ($4::text[])) from node n where n.id = $1))
