select state::text as "state!", array_agg(job_id) as "jobs!"
  from end_attempts($1, $2, $3, $4::text[]::attempt_outcome[], $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                    $17::text[]::numeric[], $18::text[]::json[], $19, $20, $21, $22)
 group by state
