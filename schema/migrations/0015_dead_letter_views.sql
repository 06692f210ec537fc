-- Dead letters as operators look at them, with any client of PostgreSQL.

create view v_dlq_dashboard as
select d.reason, d.status, d.run_id, r.name as run_name, d.owner, d.model, d.error_code,
       count(*) as entries,
       count(distinct d.fingerprint) as fingerprints,
       min(d.created_at) as oldest,
       max(d.created_at) as newest,
       case when d.status = 'pending' then clock_timestamp() - min(d.created_at) end as oldest_age
  from dead_letter d
  left join run r on r.id = d.run_id
 group by d.reason, d.status, d.run_id, r.name, d.owner, d.model, d.error_code;

comment on view v_dlq_dashboard is
    'How many dead letters there are for each reason, status, run, model and error. Sum entries over what you do not care about.';
comment on column v_dlq_dashboard.entries is 'Dead letters of this row.';
comment on column v_dlq_dashboard.fingerprints is 'How many different causes they have, as far as their errors tell.';
comment on column v_dlq_dashboard.oldest is 'When the first of them was made.';
comment on column v_dlq_dashboard.newest is 'When the last of them was made.';
comment on column v_dlq_dashboard.oldest_age is 'How long the first has been waiting for somebody; null for closed ones.';

create view v_dlq_investigation_queue as
select row_number() over (
           -- What kills workers harms others; then what many jobs share; then who has waited longest.
           order by d.reason = 'crash_loop' desc, d.alike desc, d.created_at, d.id) as place,
       d.id, d.reason, d.created_at, clock_timestamp() - d.created_at as age, d.fingerprint,
       d.alike, d.job_id, d.run_id, r.name as run_name, r.status as run_status, d.owner, d.model,
       d.error_code, d.error_message, jsonb_array_length(d.attempts) as attempts,
       (select t.attempt ->> 'stderr_tail' from jsonb_array_elements(d.attempts) with ordinality as t (attempt, n)
         where t.attempt ->> 'stderr_tail' is not null order by t.n desc limit 1) as stderr_tail
  from (select p.*, count(*) over (partition by p.fingerprint) as alike
          from dead_letter p where p.status = 'pending') as d
  left join run r on r.id = d.run_id;

comment on view v_dlq_investigation_queue is
    'The dead letters that wait for somebody. Order by place: crash loops first, then what most jobs share, then the oldest.';
comment on column v_dlq_investigation_queue.place is '1 is the most urgent.';
comment on column v_dlq_investigation_queue.id is 'For runlane deadletter show.';
comment on column v_dlq_investigation_queue.age is 'How long it has been waiting for somebody.';
comment on column v_dlq_investigation_queue.fingerprint is
    'The same for what looks the same; runlane deadletter redrive --fingerprint lets all of them try again.';
comment on column v_dlq_investigation_queue.alike is 'How many that wait have this fingerprint, this one included.';
comment on column v_dlq_investigation_queue.attempts is 'How often the job had been tried.';
comment on column v_dlq_investigation_queue.stderr_tail is 'The end of what the last worker that wrote any wrote to stderr.';

comment on table dead_letter is 'Jobs that gave up, kept with all that explains them. Close them by resolveDeadLetter or runlane deadletter.';
