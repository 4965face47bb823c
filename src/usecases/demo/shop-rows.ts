/**
 * Fills the shop with about 300,000 rows, by statements over whole sets: a few seconds. `setseed` makes every demo's
 * rows the same; the statements must run in one session and in this order.
 */
export const shopRows: readonly string[] = [
  "select setseed(0.42)",
  // Without it random() is called in workers too, each with a seed of its own.
  "set max_parallel_workers_per_gather = 0",
  // The rows refer to each other rightly by construction (made once with the checks on): half of the time saved.
  "set session_replication_role = replica",
  `insert into stores (name, city, opening_hours)
   select 'Shop no. ' || n, (array['Lyon','Zürich','Porto','Kraków','Αθήνα','Malmö'])[1 + n % 6],
     jsonb_build_object('mon', '9-18', 'sat', case when n % 2 = 0 then '10-14' end, 'days', jsonb_build_array(1, 2, n))
   from generate_series(1, 12) n`,
  `insert into "Back Office".staff (store_id, boss_id, name, "Monthly Pay", employed)
   select 1 + n % 12, case when n > 12 then 1 + n % 12 end, 'Person ' || n, 2000 + round((random() * 3000)::numeric, 2),
     daterange(date '2015-01-01' + n * 11, case when n % 9 = 0 then date '2025-06-30' end)
   from generate_series(1, 200) n`,
  "update stores set manager_id = id",
  `insert into customers (external_id, first_name, last_name, email, tags, preferences, created_at)
   select md5('customer ' || n)::uuid,
     (array['Ada','Björn','Chloé','Dmitri','Elif','Fatima','Gwen','Håkon','Ines','Jürgen','Łucja','明'])[1 + n % 12],
     (array['Smith','O''Neil','García','Müller','Núñez','Şahin','Kovač','van "der" Berg'])[1 + n % 8] || ' ' || n % 97,
     'customer' || n || '@example.com',
     case n % 4 when 0 then '{}' when 1 then array['new'] when 2 then array['vip', 'a "quoted" tag', NULL]
       else array[E'tab\\there', 'back\\slash'] end,
     case when n % 3 = 0 then '{}' else jsonb_build_object('newsletter', n % 2 = 0, 'limit', round((random() * 1e6)::numeric, 3)) end,
     timestamptz '2023-01-01 00:00+00' + random() * interval '1000 days'
   from generate_series(1, 20000) n`,
  `insert into addresses (customer_id, street, city, country, location, note)
   select 1 + n % 20000, n % 250 || ' Long Road', 'City ' || n % 700, (array['FR','DE','PT','PL','GR','SE'])[1 + n % 6],
     case when n % 5 > 0 then point(random() * 180, random() * 90) end,
     case n % 10 when 0 then '' when 1 then E'two\\nlines' when 2 then '\\N' end
   from generate_series(1, 22000) n`,
  `insert into categories select n, case when n > 8 then 1 + n % 8 end, 'Category ' || n from generate_series(1, 60) n`,
  `insert into products (category_id, sku, name, price, weight_kg, size, attributes, active)
   select 1 + n % 60, 'SKU-' || lpad(n::text, 6, '0'), 'Product ' || n || (array[' red',' green',' bleu',''])[1 + n % 4],
     round((1 + random() * 500)::numeric, 2), case when n % 7 > 0 then random() * 30 end,
     row(round((random() * 100)::numeric, 1), round((random() * 100)::numeric, 1), null)::dimensions,
     jsonb_build_object('colour', n % 16, 'materials', jsonb_build_array('wood', 'steel'), 'warranty', null), n % 11 > 0
   from generate_series(1, 2000) n`,
  `insert into product_images
   select n, 1, decode((select string_agg(md5(n || ':' || part), '') from generate_series(1, 200) part), 'hex')
   from generate_series(1, 400) n`,
  `insert into orders (customer_id, store_id, status, ordered_at, shipping)
   select 1 + floor(random() * 20000)::bigint, 1 + n % 12,
     (enum_range(null::order_status))[1 + floor(random() * 5)::int],
     date_trunc('milliseconds', timestamptz '2023-01-01 00:00+00' + random() * interval '1400 days'),
     case when n % 3 > 0 then ('10.' || n % 200 || '.' || n % 250 || '.7')::inet end
   from generate_series(1, 55000) n`,
  `insert into order_items
   select o.id, o.ordered_at, line, 1 + floor(random() * 2000)::int, 1 + floor(random() * 4)::int,
     round((1 + random() * 500)::numeric, 2)
   from orders o, generate_series(1, 1 + (o.id % 4)::int) line where line < 4 or o.id % 3 = 0`,
  `insert into payments
   select md5('payment ' || o.id)::uuid, o.id, o.ordered_at, round((random() * 2000)::numeric, 2),
     make_interval(mins => floor(random() * 5000)::int), case when o.id % 2 = 0 then '**** ' || lpad((o.id % 10000)::text, 4, '0') end
   from orders o where o.status <> 'cart'`,
  `insert into reviews
   select 1 + floor(random() * 2000)::int, 1 + floor(random() * 20000)::int, 1 + floor(random() * 5)::int,
     case when n % 4 > 0 then repeat('good value, ', 1 + n % 9) end, date '2023-02-01' + n % 900
   from generate_series(1, 15000) n`,
  `insert into "Back Office".audit_log
   select timestamptz '2025-01-01 00:00+00' + n * interval '13 minutes', 'clerk' || n % 9, 'products UPDATE',
     jsonb_build_object('price', n % 300), jsonb_build_object('price', n % 301)
   from generate_series(1, 5000) n`,
  "reset session_replication_role",
];

/** The accident: one table emptied, and an update that forgot its WHERE. */
export const shopAccident: readonly { readonly told: string; readonly sql: string }[] = [
  { told: "delete from reviews", sql: "delete from reviews" },
  { told: "update products set price = 0  -- without WHERE", sql: "update products set price = 0" },
];
