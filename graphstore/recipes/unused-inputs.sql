-- Which input units does nothing lead out of?
SELECT g.name AS graph, l.name AS input, list(u.position ORDER BY u.position) AS units
FROM units AS u
JOIN graphs AS g ON g.id = u.graph
JOIN layers AS l ON l.graph = u.graph AND l.id = u.layer
WHERE u.role = 'input' AND NOT EXISTS (
    FROM unit_strengths AS s WHERE s.graph = u.graph AND s.unit = u.id AND s.outgoing AND s.degree > 0
)
GROUP BY g.id, g.name, l.name
ORDER BY g.id
