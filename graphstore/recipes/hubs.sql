-- Which units does most weight lead into?
SELECT g.name AS graph, l.name AS layer, u.position AS unit, sum(s.degree)::BIGINT AS edges,
       round(sum(s.l1), 3) AS strength
FROM unit_strengths AS s
JOIN graphs AS g ON g.id = s.graph
JOIN units AS u ON u.graph = s.graph AND u.id = s.unit
JOIN layers AS l ON l.graph = s.graph AND l.id = u.layer
WHERE s.tensor IS NOT NULL AND NOT s.outgoing AND s.degree > 0
GROUP BY g.id, g.name, l.id, l.name, u.position
ORDER BY strength DESC, l.name, unit
LIMIT 10
