-- Money: what attempts cost.

-- US dollars for a usage of tokens at these prices, both as the worker protocol has them; exact. Null where the prices are
-- unknown, or that of a part that was used.
create function usage_cost(p_usage jsonb, p_pricing jsonb) returns numeric language sql immutable as $$
    select case when jsonb_typeof(p_usage) = 'object' and jsonb_typeof(p_pricing) = 'object'
                     and bool_and(coalesce(p.tokens, 0) = 0 or p.price is not null)
                -- A product is exact, a quotient is not.
                then trim_scale(coalesce(sum(p.tokens * p.price), 0) * 0.000001) end
      from unnest(array['input', 'output', 'reasoning', 'cacheRead', 'cacheWrite']) as part
     cross join lateral (
        select case when jsonb_typeof(p_usage -> part) = 'number' then greatest((p_usage ->> part)::numeric, 0) end,
               coalesce(p_pricing ->> (part || 'PerMillion'),
                        case part when 'reasoning' then p_pricing ->> 'outputPerMillion' end)::numeric
     ) as p (tokens, price)
$$;
