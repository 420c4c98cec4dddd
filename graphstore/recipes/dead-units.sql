-- Which hidden neurons does nothing lead into, or out of?
SELECT g.name AS graph, l.name AS layer, count(*) AS units,
       count(*) FILTER (NOT EXISTS (FROM unit_strengths AS s WHERE s.graph = u.graph AND s.unit = u.id
                                    AND NOT s.outgoing AND s.degree > 0)) AS without_input,
       count(*) FILTER (NOT EXISTS (FROM unit_strengths AS s WHERE s.graph = u.graph AND s.unit = u.id
                                    AND s.outgoing AND s.degree > 0)) AS without_output
FROM units AS u
JOIN graphs AS g ON g.id = u.graph
JOIN layers AS l ON l.graph = u.graph AND l.id = u.layer
WHERE u.role = 'hidden' AND u.neuron
GROUP BY g.id, g.name, l.id, l.name
ORDER BY g.id, l.id
