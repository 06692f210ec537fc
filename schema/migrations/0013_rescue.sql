-- What dead nodes held is given back. Locks as in 0003_claims.sql.

-- Since when leases can be judged: the start of the server, its recovery from a crash, or its promotion.
create function leases_watched_since() returns timestamptz language plpgsql as $$
declare
    v_since timestamptz;
begin
    select w.since into v_since from lease_watch w;
    if not found then
        insert into lease_watch (since) values (clock_timestamp()) on conflict (id) do nothing;
        v_since := clock_timestamp();
    end if;
    return greatest(v_since, pg_postmaster_start_time());
end
$$;

-- Gives the jobs of nodes whose lease has run out, or whose row is gone, back to the queue, and returns them. Nobody
-- judges leases within one lease of PostgreSQL's own start or promotion: while it was down nobody could renew.
create function rescue_jobs(p_lease_ms bigint)
returns table (node_id uuid, job_id bigint, number int, lane_id bigint, run_id uuid, batch_id uuid, request_id text)
language plpgsql as $$
declare
    v_node   uuid;
    v_nodes  uuid[];
    v_jobs   bigint[];
    v_claims int[];
    v_n      int;
begin
    if leases_watched_since() > clock_timestamp() - p_lease_ms * interval '1 millisecond' then
        return;
    end if;
    v_nodes := array(select n.id from node n where n.lease_until < clock_timestamp()
                      order by n.id for update skip locked);
    v_nodes := v_nodes || array(
        select distinct a.node_id from active_job a where not exists (select from node n where n.id = a.node_id));
    foreach v_node in array v_nodes loop
        select array_agg(a.id), array_agg(a.claims) into v_jobs, v_claims from active_job a where a.node_id = v_node;
        v_n := coalesce(cardinality(v_jobs), 0);
        if v_n > 0 then
            return query
            select v_node, e.job_id, c.number, j.lane_id, r.id, r.batch_id, r.request_id
              from end_attempts(
                v_node, v_jobs, v_claims,
                array_fill('lost'::attempt_outcome, array[v_n]),
                array_fill(0::bigint, array[v_n]),
                array_fill('node_lost'::text, array[v_n]),
                array_fill('the node that ran it stopped renewing its lease'::text, array[v_n]),
                array_fill(true, array[v_n]),
                array_fill(null::text, array[v_n]), array_fill(null::jsonb, array[v_n]),
                array_fill(null::jsonb, array[v_n]),
                array_fill(false, array[v_n]), array_fill(false, array[v_n])) as e
              join unnest(v_jobs, v_claims) as c (id, number) on c.id = e.job_id
              join job j on j.id = e.job_id
              join lane l on l.id = j.lane_id
              join run r on r.id = l.run_id;
        end if;
        delete from claim c where c.node_id = v_node;
        delete from node n where n.id = v_node;
        perform record_act('node.lost', 'node', v_node::text, null, null, jsonb_build_object('jobsGivenBack', v_n));
    end loop;
end
$$;
