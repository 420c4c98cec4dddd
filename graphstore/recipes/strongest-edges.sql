-- Which ten edges have the largest weights?
SELECT g.name AS graph, s.name AS source, us.position AS unit, t.name AS target, ut.position AS target_unit,
       round(e.weight, 4) AS weight
FROM edges AS e
JOIN graphs AS g ON g.id = e.graph
JOIN layers AS s ON s.graph = e.graph AND s.id = e.src_layer
JOIN layers AS t ON t.graph = e.graph AND t.id = e.layer
JOIN units AS us ON us.graph = e.graph AND us.id = e.src
JOIN units AS ut ON ut.graph = e.graph AND ut.id = e.dst
WHERE e.tensor IS NOT NULL
ORDER BY e.max_abs DESC, e.graph, e.src, e.dst
LIMIT 10
