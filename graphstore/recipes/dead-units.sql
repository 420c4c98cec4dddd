-- Which hidden neurons does nothing lead into, or out of?
SELECT g.name AS graph, l.name AS layer, count(*) AS units,
       count(*) FILTER (NOT EXISTS (FROM edges AS e WHERE e.graph = u.graph AND e.dst = u.id)) AS without_input,
       count(*) FILTER (NOT EXISTS (FROM edges AS e WHERE e.graph = u.graph AND e.src = u.id)) AS without_output
FROM units AS u
JOIN graphs AS g ON g.id = u.graph
JOIN layers AS l ON l.graph = u.graph AND l.id = u.layer
WHERE u.role = 'hidden' AND u.neuron
GROUP BY g.id, g.name, l.id, l.name
ORDER BY g.id, l.id
