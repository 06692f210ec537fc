//! What keeps jobs waiting.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Result, Store};
use crate::domain::JobKind;
use crate::domain::crash::LaneHold;
use crate::domain::rate_limit::ProviderHold;
use crate::domain::spend::{Account, SpendHold};
use crate::domain::waiting::BudgetRoom;

/// Everything that bears on why a job waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingFacts {
    /// The job.
    pub job_id: i64,
    /// Its run.
    pub run_id: Uuid,
    /// What it does.
    pub kind: JobKind,
    /// Of a probe: the model.
    pub model: Option<String>,
    /// Its run is paused.
    pub run_pause: Option<RunPause>,
    /// The queue is paused.
    pub queue_pause: Option<QueuePause>,
    /// Its lane is held.
    pub hold: Option<LaneHold>,
    /// The earliest start, where that is in the future.
    pub not_before: Option<DateTime<Utc>>,
    /// What went wrong last.
    pub error_code: Option<String>,
    /// Counted failures.
    pub failures: i16,
    /// Probes of its run that run at once at most.
    pub max_concurrency: Option<i32>,
    /// Probes of its run that run now.
    pub run_active: i64,
    /// A limit that leaves no room for it.
    pub limit: Option<ShutLimit>,
    /// A spend limit that holds it.
    pub spend: Option<SpendHold>,
    /// What its run may cost.
    pub budget: Option<BudgetRoom>,
    /// Whether a node that executes jobs is alive and not draining.
    pub has_node: bool,
    /// Whether the workers of one can call its model's provider.
    pub is_served: bool,
    /// Waiting jobs that come first: those of lanes with a higher priority, and earlier ones of its own lane, of which
    /// at most as many as were asked for are counted.
    pub ahead: i64,
    /// Whether more of its own lane come first than were counted.
    pub ahead_is_capped: bool,
}

/// A limit that leaves no room for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutLimit {
    /// A provider or a model.
    pub name: String,
    /// What it counts: `jobs`, `requests` or `tokens`.
    pub counted: String,
    /// The ceiling of that, as it is now; `None` while the limit is held.
    pub ceiling: Option<i64>,
    /// When there will be room, or the hold ends, if that is known.
    pub opens_at: Option<DateTime<Utc>>,
    /// Somebody has to look first.
    pub hold: Option<ProviderHold>,
}

/// A pause of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPause {
    /// Since when.
    pub since: DateTime<Utc>,
    /// Why, where its own guard paused it.
    pub halt: Option<String>,
}

/// A pause of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePause {
    /// Who paused it.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

impl Store {
    /// What bears on those of these jobs that wait, in no order. Of each job's lane, at most `count_max` earlier jobs
    /// are counted.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn waiting_facts(&self, jobs: &[i64], count_max: i64) -> Result<Vec<WaitingFacts>> {
        let rows = sqlx::query!(
            r#"
            with room as materialized (select * from spend_rooms(clock_timestamp()))
            select j.id as "id!", l.run_id, l.kind::text as "kind!", l.model, r.paused_at as "run_paused_at?",
                   r.halt_reason, l.budget_usd, job_reserve(l) as "reserve!",
                   case when l.budget_usd is not null then money_left(l.run_id) end as money_left,
                   spend.scope as "scope?", spend.key as "key?", spend.period as "period?", spend.usd as "usd?",
                   spend.spent as "spent?", spend.reserved as "reserved?", spend.until_at as "until_at?",
                   q.is_paused as "queue_is_paused!", q.paused_by as "paused_by?", q.pause_reason as "pause_reason?",
                   l.held_at, l.hold_reason,
                   j.run_at as "run_at!", j.run_at > clock_timestamp() as "is_later!", j.error_code, j.failures as "failures!",
                   shut.name as "limit_name?", shut.counted as "limit_counted?", shut.ceiling as "limit_ceiling?",
                   shut.opens_at as "limit_opens_at?", shut.held_at as "limit_held_at?",
                   shut.hold_code as "limit_hold_code?", shut.hold_reason as "limit_hold_reason?",
                   l.max_concurrency, active.n as "run_active!", node.is_there as "has_node!",
                   (l.model is null or split_part(l.model, '/', 1) = any (node.providers)) as "is_served!",
                   higher.n as "higher!", earlier.n as "earlier!"
              from current_job j
              join lane l on l.id = j.lane_id
              join run r on r.id = l.run_id
             cross join queue_state q
             cross join (
                select count(n.id) > 0 as is_there, coalesce(array_agg(distinct p), '{}') as providers
                  from node n left join lateral unnest(n.providers) as p on true
                 where n.executes and not n.is_draining and n.lease_until > clock_timestamp()
             ) as node
             cross join lateral (
                select coalesce(sum(s.active), 0) as n
                  from lane s where s.run_id = l.run_id and s.kind = 'probe:scenario'
             ) as active
             cross join lateral (
                select coalesce(sum(o.pending), 0) as n
                  from lane o
                 where o.is_live and o.kind = l.kind and o.is_open and not o.is_paused and o.held_at is null
                   and o.priority > l.priority
                   and (o.model is null or split_part(o.model, '/', 1) = any (node.providers))
             ) as higher
             cross join lateral (
                select count(*) as n
                  from ((select from waiting_job e
                          where e.lane_id = l.id and (e.run_at, e.job_id) < (j.run_at, j.id)
                          limit $2)
                        union all
                        (select from job f
                          where f.id > l.fresh_after
                            and f.id < case when l.fresh_at < j.run_at then l.fresh_until + 1
                                            when l.fresh_at = j.run_at then j.id else 0 end
                            and f.lane_id + 0 = l.id and f.state = 'pending' and f.is_fresh
                          limit $2)
                        limit $2) as e
             ) as earlier
              left join lateral (
                select r.name, split_part(o.part, ' ', 1) as counted, o.opens_at, r.held_at, r.hold_code, r.hold_reason,
                       case when r.held_at is not null or r.held_until > clock_timestamp() then null
                            else case split_part(o.part, ' ', 1)
                                 when 'jobs' then floor(least(r.in_flight_max, r.concurrency))::bigint
                                 when 'requests' then r.requests_per_minute else r.tokens_per_minute end end as ceiling
                  from unnest(rooms(array(select n.id from rate_limit n where n.name in (l.model, provider_of(l.model))),
                                    clock_timestamp())) as o
                  join rate_limit r on r.id = o.limit_id
                 where o.remains < needed(o, l.requests, l.tokens)
                 order by r.held_at nulls last, o.opens_at desc nulls last
                 limit 1
             ) as shut on true
             left join lateral (
                select m.* from room m
                 where l.kind = 'probe:scenario' and spend_covers(m.scope, m.key, r.created_by, r.created_group)
                   and spend_holds(m.remains, l)
                 order by m.until_at desc, m.scope, m.key limit 1
             ) as spend on true
             where j.id = any($1) and j.state = 'pending' and l.is_open
            "#,
            jobs,
            count_max + 1
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(WaitingFacts {
                    job_id: row.id,
                    run_id: row.run_id,
                    kind: row.kind.parse()?,
                    model: row.model,
                    run_pause: row.run_paused_at.map(|since| RunPause { since, halt: row.halt_reason }),
                    budget: row.budget_usd.zip(row.money_left).map(|(usd, left)| BudgetRoom {
                        usd,
                        left,
                        needed: row.reserve,
                    }),
                    queue_pause: row
                        .queue_is_paused
                        .then_some(QueuePause { by: row.paused_by, reason: row.pause_reason }),
                    spend: match (
                        row.scope,
                        row.key,
                        row.period,
                        row.usd,
                        row.spent,
                        row.reserved,
                        row.until_at,
                    ) {
                        (
                            Some(scope),
                            Some(key),
                            Some(period),
                            Some(usd),
                            Some(spent),
                            Some(reserved),
                            Some(until),
                        ) => Some(SpendHold {
                            account: Account { scope: scope.parse()?, key, period: period.parse()? },
                            limit_usd: usd,
                            spent_usd: spent,
                            reserved_usd: reserved,
                            until,
                        }),
                        _ => None,
                    },
                    hold: row.held_at.zip(row.hold_reason).map(|(since, reason)| LaneHold { since, reason }),
                    not_before: row.is_later.then_some(row.run_at),
                    error_code: row.error_code,
                    failures: row.failures,
                    limit: row.limit_name.zip(row.limit_counted).map(|(name, counted)| ShutLimit {
                        name,
                        counted,
                        ceiling: row.limit_ceiling,
                        opens_at: row.limit_opens_at,
                        hold: row
                            .limit_held_at
                            .zip(row.limit_hold_code)
                            .zip(row.limit_hold_reason)
                            .map(|((since, code), reason)| ProviderHold { since, code, reason }),
                    }),
                    max_concurrency: row.max_concurrency,
                    run_active: row.run_active,
                    has_node: row.has_node,
                    is_served: row.is_served,
                    ahead: row.higher + row.earlier.min(count_max),
                    ahead_is_capped: row.earlier > count_max,
                })
            })
            .collect()
    }
}
