-- Which outputs can each layer reach, along edges of any kind but recurrent and norm?
WITH RECURSIVE reached AS (
    SELECT graph, id AS "end", id AS unit FROM units WHERE role = 'output'
    UNION
    SELECT r.graph, r."end", e.src FROM reached AS r
    JOIN edges AS e ON e.graph = r.graph AND e.dst = r.unit AND e.kind NOT IN ('recurrent', 'norm')
)
SELECT g.name AS graph, l.name AS layer, count(DISTINCT r.unit) AS reaching, l.n_units AS units,
       count(DISTINCT r."end") AS outputs
FROM reached AS r
JOIN units AS u ON u.graph = r.graph AND u.id = r.unit
JOIN layers AS l ON l.graph = r.graph AND l.id = u.layer
JOIN graphs AS g ON g.id = r.graph
GROUP BY g.id, g.name, l.id, l.name, l.n_units
ORDER BY g.id, l.id
