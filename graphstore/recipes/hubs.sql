-- Which units does most weight lead into?
SELECT g.name AS graph, l.name AS layer, u.position AS unit, count(*) AS edges, round(sum(e.l1), 3) AS strength
FROM edges AS e
JOIN graphs AS g ON g.id = e.graph
JOIN units AS u ON u.graph = e.graph AND u.id = e.dst
JOIN layers AS l ON l.graph = e.graph AND l.id = u.layer
WHERE e.tensor IS NOT NULL
GROUP BY ALL
ORDER BY strength DESC, l.name, unit
LIMIT 10
